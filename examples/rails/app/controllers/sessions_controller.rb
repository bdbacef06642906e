class SessionsController < ApplicationController
  def new
  end

  def create
    if right_password?
      reset_session
      session[:user] = params[:user]
      redirect_to root_path, status: :see_other
    else
      flash.now[:alert] = "Wrong name or password"
      render :new, status: :unprocessable_entity
    end
  end

  def destroy
    reset_session
    redirect_to login_path, status: :see_other
  end

  private

  def right_password?
    ActiveSupport::SecurityUtils.secure_compare(params[:password].to_s, ENV.fetch("DEMO_PASSWORD")) &&
      params[:user] == "demo"
  end
end
