Rails.application.routes.draw do
  root "files#index"
  get "login", to: "sessions#new"
  post "login", to: "sessions#create"
  post "logout", to: "sessions#destroy"
  post "files", to: "files#create"
  get "files/:name", to: "files#show", constraints: { name: %r{[^/]+} }, as: :file
  get "stream", to: "streams#show"
  mount ActionCable.server => "/cable"
end
