from rabbitbal.runtime.lifecycle import main
from rabbitbal.worker.serve import serve
from rabbitbal.worker.settings import Settings

main(Settings, serve, "worker")
