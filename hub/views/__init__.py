"""The web pages and APIs, a module for each page family."""
