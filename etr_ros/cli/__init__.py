"""The command line `etr`: one verb per file. Heavy libraries are imported when a verb runs, so that help is instant."""
