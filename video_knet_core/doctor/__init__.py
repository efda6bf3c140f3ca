"""Whether this installation works, and what to do where it does not: `video-knet doctor`.

Each check gives a line, and a remedy where something is to be done. Nothing is written but a probe
without a name in the cache folder. Every check imports what it needs itself, so that
`python -m video_knet_core.doctor [MODEL]` also reports what is wrong where dependencies of the
command are missing.
"""
