module ApplicationCable
  class Connection < ActionCable::Connection::Base
    identified_by :user

    # The session's cookie comes with the request that opens the WebSocket.
    def connect
      self.user = request.session[:user] || reject_unauthorized_connection
    end
  end
end
