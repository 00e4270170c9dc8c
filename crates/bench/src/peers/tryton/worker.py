"""Makes a Tryton database for each line `database <number>` and answers a line of JSON.

What `createdb` and `trytond-admin -d DB --all -u ledger20` of its documentation do, without starting
Python anew: the database, Tryton's own modules (ir, res), ours, and an administrator.
"""
import argparse
import json
import os
import sys

import psycopg

from trytond import config

config.set("database", "uri", os.environ["TRYTON_URI"])
config.set("database", "language", "en")

from trytond import admin
from trytond.pool import Pool

SERVER = os.environ["TRYTON_URI"] + "/postgres"


def options(database):
    return argparse.Namespace(
        database_names=[database],
        update=["ir", "ledger20"],
        languages=[],
        activatedeps=True,
        indexes=True,
        update_modules_list=False,
        login="admin",
        administrator=None,
        active=True,
        email="admin@example.com",
        password=False,
        # Else it asks for one on the terminal.
        reset_password=False,
        test_email=None,
        hostname=None,
        export_translations=False,
        validate=None,
        validate_percentage=100,
    )


def make(database):
    with psycopg.connect(SERVER, autocommit=True) as server:
        # An attempt that failed may have left it behind.
        server.execute(f"drop database if exists {database}")
        server.execute(f"create database {database}")
    admin.run(options(database))
    # A pool is kept for each database for ever; a program that makes one database has no others.
    Pool.stop(database)
    with psycopg.connect(f"{os.environ['TRYTON_URI']}/{database}") as found:
        sql = "select count(*) from pg_tables where tablename like 'ledger20_%'"
        tables = found.execute(sql).fetchone()[0]
    if tables != int(sys.argv[1]):
        raise RuntimeError(f"{database} has {tables} tables")


out = os.dup(1)
os.dup2(2, 1)
out = os.fdopen(out, "w")
for line in sys.stdin:
    words = line.split()
    answer = {"error": None}
    try:
        if words[0] == "ready":
            Pool.start()
        else:
            make(f"tryton_{words[1]}")
    except Exception as error:
        answer["error"] = f"{type(error).__name__}: {error}".splitlines()[0]
    print(json.dumps(answer), file=out, flush=True)
