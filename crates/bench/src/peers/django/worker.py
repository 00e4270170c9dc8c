"""Onboards a tenant for each line `<way> <number>` and answers a line of JSON.

`save` makes it by migrations; `clone` copies the schema `pattern`, as TENANT_CREATION_FAKES_MIGRATIONS
and TENANT_BASE_SCHEMA of the documentation say.
"""
import json
import os
import sys

os.environ["DJANGO_SETTINGS_MODULE"] = "settings"

import django

django.setup()

from django.conf import settings
from django.db import connection

from clients.models import Client, Domain

TABLES = int(sys.argv[1])


def onboard(way, number):
    settings.TENANT_CREATION_FAKES_MIGRATIONS = way == "clone"
    settings.TENANT_BASE_SCHEMA = "pattern"
    schema = "pattern" if way == "pattern" else f"{way}_{number}"
    client = Client(schema_name=schema)
    client.save(verbosity=0)
    Domain(domain=f"{schema}.localhost", tenant=client, is_primary=True).save()


def check(schema):
    with connection.cursor() as cursor:
        cursor.execute("select count(*) from pg_tables where schemaname = %s", [schema])
        found = cursor.fetchone()[0]
    # One more: Django's own list of migrations.
    if found != TABLES + 1:
        raise RuntimeError(f"{schema} has {found} tables")


for line in sys.stdin:
    words = line.split()
    answer = {"error": None}
    try:
        if words[0] == "ready":
            connection.ensure_connection()
        elif words[0] == "check":
            check(words[1])
        else:
            onboard(*words)
    except Exception as error:
        answer["error"] = f"{type(error).__name__}: {error}".splitlines()[0]
    print(json.dumps(answer), flush=True)
