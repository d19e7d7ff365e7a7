"""An MCP server of a few lines, over stdio or, given a port, over HTTP."""

import os
import sys

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError

server = MCPServer("weather")


@server.tool()
def tell(city: str) -> str:
    """Tell the weather in a city."""
    if city == "Atlantis":
        raise ToolError("There is no such city.")
    return f"Rain in {city}."


@server.tool()
def change(city: str) -> str:
    """Change the weather in a city."""
    return f"Sun in {city}."


@server.tool()
def fall() -> str:
    """Fall over, as programs do."""
    os._exit(1)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[1]))
    else:
        server.run("stdio")
