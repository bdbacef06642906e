from rabbitbal.runtime.lifecycle import main
from rabbitbal.tap.serve import serve
from rabbitbal.tap.settings import Settings

main(Settings, serve, "tap")
