"""Reads of many tenants through django-tenants, each thread with a connection of its own to the pooler.

Arguments: port, database, user, password, tenants, requests, threads. Prints one line of JSON.
Autocommit and one SET search_path for each cursor: the defaults of Django and of django-tenants.
"""
import importlib.metadata as metadata
import json
import random
import sys
import threading

import django
from django.conf import settings

port, database, user, password = sys.argv[1:5]
tenants, requests, threads = map(int, sys.argv[5:8])
settings.configure(
    DATABASES={
        "default": {
            "ENGINE": "django_tenants.postgresql_backend",
            "HOST": "127.0.0.1",
            "PORT": port,
            "NAME": database,
            "USER": user,
            "PASSWORD": password,
            "CONN_MAX_AGE": None,
            # Django's documentation asks for it behind a pooler in transaction mode.
            "DISABLE_SERVER_SIDE_CURSORS": True,
        }
    },
    DATABASE_ROUTERS=["django_tenants.routers.TenantSyncRouter"],
    INSTALLED_APPS=["django.contrib.contenttypes"],
    TENANT_MODEL="none.None",
)
django.setup()

from django.db import connection, models  # noqa: E402
from django_tenants.utils import schema_context  # noqa: E402


class Note(models.Model):
    tenant = models.BigIntegerField()

    class Meta:
        app_label = "notes"
        db_table = "note"
        managed = False


lock = threading.Lock()
seen = {"requests": 0, "reads": 0, "wrong": 0, "short": 0, "refused": 0, "failed": 0, "panicked": 0}


def read(tenant, count):
    rows = list(Note.objects.filter(id__lte=3))
    count["reads"] += 1
    if any(row.tenant != tenant for row in rows):
        count["wrong"] += 1
    elif len(rows) != 3:
        count["short"] += 1


def request(draw, tenant, count):
    count["requests"] += 1
    fate = draw.random()
    with schema_context(f"tenant_{tenant}"):
        read(tenant, count)
        if fate < 0.02:
            count["failed"] += 1
            try:
                with connection.cursor() as cursor:
                    cursor.execute("select 1 / 0")
            except django.db.DataError:
                read(tenant, count)
        elif fate < 0.025:
            count["panicked"] += 1
            raise RuntimeError("on purpose")


def work(number):
    draw = random.Random(number)
    count = dict.fromkeys(seen, 0)
    for _ in range(requests // threads):
        try:
            request(draw, draw.randint(1, tenants), count)
        except RuntimeError:
            pass
        except django.db.Error:
            count["refused"] += 1
            connection.close()
    connection.close()
    with lock:
        for name, value in count.items():
            seen[name] += value


workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
for worker in workers:
    worker.start()
for worker in workers:
    worker.join()
if seen["requests"] != requests // threads * threads:
    sys.exit("a thread has ended early")

versions = {name: metadata.version(name) for name in ("Django", "django-tenants", "psycopg")}
print(json.dumps({**seen, "versions": versions}))
