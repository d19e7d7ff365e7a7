"""How the weights that come with vivavoce were trained. Never imported by the server."""
