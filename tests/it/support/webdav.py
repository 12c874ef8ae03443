"""Serves the folder that it is given by WebDAV, on a free port that it tells."""

import sys

from cheroot import wsgi
from wsgidav.wsgidav_app import WsgiDAVApp

app = WsgiDAVApp(
    {
        "provider_mapping": {"/": sys.argv[1]},
        "simple_dc": {"user_mapping": {"*": True}},
        "logging": {"enable": False},
    }
)
server = wsgi.Server(("127.0.0.1", 0), app)
server.prepare()
print(f"serving at http://127.0.0.1:{server.bind_addr[1]}", file=sys.stderr, flush=True)
server.serve()
