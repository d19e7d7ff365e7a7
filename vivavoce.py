"""What an agent is written with: `from vivavoce import Agent`. `docs/agents.md` begins at the beginning."""

from server.agents.agent import Agent, McpServer
from server.agents.call import Call, Said
from server.agents.errors import AgentError, CallError
from server.agents.function_tool import Spoken, tool

__all__ = ["Agent", "AgentError", "Call", "CallError", "McpServer", "Said", "Spoken", "tool"]
