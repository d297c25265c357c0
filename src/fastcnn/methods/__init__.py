"""The survey, a room per family and a file per method.

Importing this package costs nothing: the rooms (and torch with them) are imported by the first
call of :func:`fastcnn.methods.registry.list_methods` or by naming a method's own module.
"""
