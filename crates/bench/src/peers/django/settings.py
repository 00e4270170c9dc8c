"""Settings of a project with django-tenants; the server is in libpq's environment."""
import os

SECRET_KEY = "bench"
DATABASES = {
    "default": {
        "ENGINE": "django_tenants.postgresql_backend",
        "HOST": os.environ["PGHOST"],
        "PORT": os.environ["PGPORT"],
        "NAME": os.environ["PGDATABASE"],
        "USER": os.environ["PGUSER"],
        "PASSWORD": os.environ["PGPASSWORD"],
    }
}
DATABASE_ROUTERS = ["django_tenants.routers.TenantSyncRouter"]
SHARED_APPS = ["django_tenants", "django.contrib.contenttypes", "clients"]
TENANT_APPS = ["ledger20"]
INSTALLED_APPS = [*SHARED_APPS, *TENANT_APPS]
TENANT_MODEL = "clients.Client"
TENANT_DOMAIN_MODEL = "clients.Domain"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
# Its documentation: the number of processes, and of tenants handed to one of them at a time.
TENANT_MULTIPROCESSING_MAX_PROCESSES = 4
TENANT_MULTIPROCESSING_CHUNKS = 10
TENANT_SUBPROCESS_PARALLEL = 4
