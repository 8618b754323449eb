"""The Celery workers: they carry out what the hub accepted."""
