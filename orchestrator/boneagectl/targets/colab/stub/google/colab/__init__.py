"""A stub of Colab's own package, for running a notebook elsewhere.

STUB_DRIVE is the folder that replaces the user's Drive, STUB_DOWNLOADS the browser's; STUB_SECRET_<NAME> are the
secrets, and STUB_SECRETS makes reading one fail: ``denied`` or ``timeout``. STUB_DRIVE_FAULT: see `drive`.
"""
