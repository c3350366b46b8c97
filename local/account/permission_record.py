"""The words of the record of permissions, for who writes it and for who reads it."""

PATH = "/_updraft/permissions"
ALLOWED = "allowed"
DENIED = "denied"
# The request tells no resource, and a policy allows the action on some.
UNTOLD = "untold"
# Nobody has read yet which permission such a request needs.
UNKNOWN = "unknown"
