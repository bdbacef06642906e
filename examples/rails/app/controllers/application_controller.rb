class ApplicationController < ActionController::Base
  protect_from_forgery with: :exception

  helper_method :user

  private

  def user
    session[:user]
  end

  def must_be_signed_in
    redirect_to login_path, status: :see_other unless user
  end
end
