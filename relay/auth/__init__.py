"""Authentication: keys, token verification, revocation and signing; origins and client addresses."""
