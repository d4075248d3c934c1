"""A file becomes intervals: of equal length, of one scene each, or with an overlap and borders at quiet places."""
