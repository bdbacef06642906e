require "digest"
require "fileutils"

# The files that were uploaded, in the volume that the workers share.
module Store
  DIRECTORY = Pathname("/data/files")
  NAME = /\A[A-Za-z0-9][A-Za-z0-9._-]{0,99}\z/

  module_function

  def names
    DIRECTORY.glob("*").map { |path| path.basename.to_s }.sort
  end

  # The path of a file, or nil where there is none.
  def find(name)
    path = DIRECTORY / name if NAME.match?(name)
    path if path&.file?
  end

  # Takes an uploaded file. Returns its name, or nil where the name is not one for a file.
  def add(upload)
    name = upload.original_filename
    return unless NAME.match?(name)

    DIRECTORY.mkpath
    # Renamed when it is whole, so that nobody sees a part of it.
    FileUtils.mv(upload.tempfile.path, DIRECTORY / name)
    name
  end

  # One line about a file: name, bytes, checksum.
  def line(name)
    path = DIRECTORY / name
    "#{name} #{path.size} #{Digest::SHA256.file(path).hexdigest}\n"
  end
end
