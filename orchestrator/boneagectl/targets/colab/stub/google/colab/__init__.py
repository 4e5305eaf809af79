"""Stands in for Colab's own package where a notebook is run elsewhere.

STUB_DRIVE is the folder that is the user's Drive, STUB_DOWNLOADS the browser's; STUB_SECRET_<NAME> are the secrets,
and STUB_SECRETS what happens instead of giving one: ``denied`` or ``timeout``. STUB_DRIVE_FAULT: see `drive`.
"""
