"""Writing a file so that a reader sees either all of it or none of it."""

from pacl.atomic import write_atomically as write_atomically
