class FilesController < ApplicationController
  before_action :must_be_signed_in, except: :show

  def index
    @names = Store.names
  end

  def create
    upload = params.require(:file)
    if (name = Store.add(upload))
      redirect_to root_path, status: :see_other, notice: "Saved #{name}"
    else
      redirect_to root_path, status: :see_other, alert: "That is no name for a file"
    end
  end

  def show
    if (path = Store.find(params[:name]))
      send_file path
    else
      head :not_found
    end
  end
end
