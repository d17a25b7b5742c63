"""An editor that speaks to `dropkit server` over standard input and output."""

import json
import subprocess
import sys
import threading

# A server that says nothing is ended after so many seconds, so that a test fails instead of waiting.
PATIENCE = 60


class Editor:
    """A client. What the server says while an answer is awaited is kept in `heard`."""

    def __init__(self, folder, encodings=None):
        self.folder = folder
        command = [sys.executable, "-m", "dropkit", "server"]
        self.server = subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.alarm = threading.Timer(PATIENCE, self.server.kill)
        self.alarm.start()
        self.heard, self.count = [], 0
        general = {} if encodings is None else {"general": {"positionEncodings": encodings}}
        parameters = {"processId": None, "rootUri": folder.as_uri(), "capabilities": general}
        self.capabilities = self.ask("initialize", parameters)["capabilities"]
        self.tell("initialized", {})

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.ask("shutdown", None)
        self.tell("exit", None)
        code = self.server.wait(PATIENCE)
        self.alarm.cancel()
        self.server.stdin.close()
        self.server.stdout.close()
        assert code == 0

    def tell(self, method, params, **more):
        self.send(json.dumps({"jsonrpc": "2.0", "method": method, "params": params, **more}).encode())

    def send(self, body):
        self.server.stdin.write(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        self.server.stdin.flush()

    def ask(self, method, params):
        self.count += 1
        self.tell(method, params, id=self.count)
        while (message := self.read()).get("id") != self.count or "method" in message:
            self.heard.append(message)
        assert "error" not in message, message
        return message["result"]

    def read(self):
        length = 0
        while line := self.server.stdout.readline().strip():
            name, _, value = line.partition(b":")
            length = int(value) if name.lower() == b"content-length" else length
        assert length, "the server sent nothing"
        return json.loads(self.server.stdout.read(length))

    def wait_for(self, method):
        """The parameters of the next message of this method."""
        for index, message in enumerate(self.heard):
            if message.get("method") == method:
                return self.heard.pop(index)["params"]
        while (message := self.read()).get("method") != method:
            self.heard.append(message)
        return message["params"]

    def uri(self, name="model.py"):
        return (self.folder / name).as_uri()

    def open(self, source, name="model.py", version=1):
        """Save and open a document; return the diagnostics that are published for it."""
        (self.folder / name).parent.mkdir(exist_ok=True)
        (self.folder / name).write_bytes(source.encode())
        document = {"uri": self.uri(name), "languageId": "python", "version": version, "text": source}
        self.tell("textDocument/didOpen", {"textDocument": document})
        return self.wait_for("textDocument/publishDiagnostics")

    def change(self, source, version, name="model.py"):
        document = {"uri": self.uri(name), "version": version}
        self.tell("textDocument/didChange", {"textDocument": document, "contentChanges": [{"text": source}]})

    def actions(self, start=(0, 0), end=(999, 0), only=None, name="model.py"):
        where = {"start": {"line": start[0], "character": start[1]}, "end": {"line": end[0], "character": end[1]}}
        context = {"diagnostics": []} | ({} if only is None else {"only": only})
        document = {"uri": self.uri(name)}
        return self.ask("textDocument/codeAction", {"textDocument": document, "range": where, "context": context})
