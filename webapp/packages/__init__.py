"""Packages of plugins: wheels got, looked into without running anything of them, and unpacked. No database, no plugin.
The command line and the step `install` bring them in; whoever loads plugins unpacks them.
"""
