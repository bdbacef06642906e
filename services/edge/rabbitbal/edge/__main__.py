from rabbitbal.edge.serve import serve
from rabbitbal.edge.settings import Settings
from rabbitbal.runtime.lifecycle import main

main(Settings, serve, "edge")
