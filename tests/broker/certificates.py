"""A certificate authority and a server's certificate, made for a throwaway broker."""

from pathlib import Path

# For rabbitmq.conf, of which this is a part.
SETTINGS = """\
ssl_options.cacertfile = {folder}/ca.pem
ssl_options.certfile = {folder}/server.pem
ssl_options.keyfile = {folder}/server.key
"""
FILES = ("ca.pem", "server.pem", "server.key")


def make(folder: Path) -> Path:
    """Make the files in a new folder; return that of the authority, for the clients."""
    import trustme  # takes a moment, and few need it

    authority = trustme.CA()
    server = authority.issue_cert("localhost")  # and no other name, nor address
    folder.mkdir()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    server.cert_chain_pems[0].write_to_path(str(folder / "server.pem"))
    server.private_key_pem.write_to_path(str(folder / "server.key"))
    return folder / "ca.pem"
