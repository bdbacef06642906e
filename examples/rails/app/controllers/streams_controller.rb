# /stream?names=a,b: a line about each file, sent as soon as the file is there.
class StreamsController < ApplicationController
  include ActionController::Live

  PATIENCE = 20.seconds

  def show
    response.content_type = "text/plain"
    params[:names].to_s.split(",").each { |name| response.stream.write(line(name)) }
  ensure
    response.stream.close
  end

  private

  def line(name)
    deadline = PATIENCE.from_now
    sleep 0.05 until (found = Store.find(name)) || Time.current > deadline
    found ? Store.line(name) : "#{name} did not come\n"
  end
end
