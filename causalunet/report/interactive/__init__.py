"""Figures for browsers, drawn by Bokeh: what is under the mouse is told, and parts can be looked at closely.

Needs the extra ``explore``; nothing here is imported before a figure is asked for.
"""
