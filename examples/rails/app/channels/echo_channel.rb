# Sends back to a client what it says.
class EchoChannel < ActionCable::Channel::Base
  def echo(data)
    transmit({ text: data["text"] })
  end
end
