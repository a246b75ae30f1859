"""Serves moto on one thread: its stores are plain dictionaries, which concurrent writers break with HTTP 500.

usage: moto_serial.py PORT      (binds 127.0.0.1)
"""

import sys

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple

run_simple("127.0.0.1", int(sys.argv[1]), DomainDispatcherApplication(create_backend_app), threaded=False)
