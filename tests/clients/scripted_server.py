"""A server whose model is a script, for third-party clients: `python scripted_server.py SCRIPT LOGS` prints its address, then what it was
told, and leaves a log of every session in the folder LOGS.

SCRIPT is a JSON object: `transcripts`, what the caller's turns are heard as, and `replies`, each an object with `text` and `tool_calls`
([name, arguments] pairs). Each line of standard output but the first is one reply's context: a JSON list of [role, text].
"""

import json
import sys
from pathlib import Path

from agent.conversation import Conversation
from server.engine_link import LocalEngineLink
from server.serve import ServeOptions, run_server
from streaming.events import ContextMessage
from streaming.fakes import ScriptedEngine, ScriptedReply


def main(script: str, logs: str) -> int:
    """Serve until told to stop; returns the exit status."""
    said = json.loads(script)
    replies = [ScriptedReply(reply["text"], tool_calls=tuple(map(tuple, reply["tool_calls"]))) for reply in said["replies"]]

    def reply(messages: tuple[ContextMessage, ...]) -> ScriptedReply:
        """The next reply of a dialogue: by how often its model has been asked, the call's result included."""
        print(json.dumps([[message.role, message.text] for message in messages]), flush=True)
        asked = sum(message.role in ("user", "tool_result") for message in messages)
        return replies[asked - 1] if 1 <= asked <= len(replies) else ScriptedReply("I have no more to say.")

    link = LocalEngineLink(ScriptedEngine(replies=reply, transcripts=said["transcripts"]))
    return run_server(ServeOptions(port=0, record=Path(logs)), link, Conversation)


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
