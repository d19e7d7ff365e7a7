"""A server whose model is a script, for third-party clients: `python scripted_server.py` prints its address, and what the model was told.

Each line of standard output but the first is one reply's context: a JSON list of [role, text].
"""

import json

from agent.conversation import Conversation
from server.engine_link import LocalEngineLink
from server.limits import Limits
from server.serve import ServeOptions, run_server
from streaming.events import ContextMessage
from streaming.fakes import ScriptedEngine, ScriptedReply

LONG = " ".join(f"This is sentence number {number} of a story that is far too long." for number in range(1, 31))
"""330 words, 20 s: still being sent when it is interrupted, for at most 10 s leave ahead of real time."""

REPLIES = {
    1: ScriptedReply("Hello there, this is the first answer."),
    2: ScriptedReply(LONG),
    3: ScriptedReply("You interrupted me."),
    4: ScriptedReply("", tool_calls=(("get_weather", '{"city": "Paris"}'),)),
    5: ScriptedReply("It is sunny in Paris."),
}


def reply(messages: tuple[ContextMessage, ...]) -> ScriptedReply:
    """The next reply of a dialogue: by how often its model has been asked, the call's result included."""
    print(json.dumps([[message.role, message.text] for message in messages]), flush=True)
    asked = sum(message.role in ("user", "tool_result") for message in messages)
    return REPLIES.get(asked, ScriptedReply("I have no more to say."))


if __name__ == "__main__":
    link = LocalEngineLink(ScriptedEngine(replies=reply))
    raise SystemExit(run_server(ServeOptions(port=0, limits=Limits(max_sessions=16)), link, Conversation))
