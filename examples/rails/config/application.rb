# Debian's gems are on Ruby's path: there is no Gemfile, and nothing to bundle.
require "rails"
require "action_controller/railtie"
require "action_cable/engine"

module Files
  class Application < Rails::Application
    config.root = File.expand_path("..", __dir__)
    config.load_defaults 7.2
    config.eager_load = true
    config.logger = ActiveSupport::Logger.new($stdout)
    config.log_level = :warn
    config.filter_parameters += [:password]
    # The cookie is the session, signed and encrypted with SECRET_KEY_BASE: any worker can read it.
    config.session_store :cookie_store, key: "files_session"
  end
end
