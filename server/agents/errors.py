"""What can be wrong with an agent."""

__all__ = ["AgentError", "CallError"]


class AgentError(Exception):
    """The definition of an agent is wrong, or can't be loaded; the message is one line that says what to do."""


class CallError(Exception):
    """What a tool or hook asked of the call can't be done; the message says why, and the model is told it."""
