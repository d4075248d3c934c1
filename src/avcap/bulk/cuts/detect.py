"""The process that looks for scenes: a file's path -> the seconds of its cuts, as JSON on stdout.

Apart from the caller, as all decoding is: a file that crashes the decoder ends this process alone.
"""

import json
import logging
import sys

SHORTEST = "0.4s"
"""Of what the detector takes for a scene; scenes.py joins what is too short for a clip."""


def main() -> None:
    """sys.argv[2] -> its cuts on stdout."""
    from scenedetect import AdaptiveDetector, SceneManager
    from scenedetect.backends import VideoStreamAv

    logging.getLogger("pyscenedetect").setLevel(logging.ERROR)
    # an open file, and not its name: names have meanings to FFmpeg
    with open(sys.argv[2], "rb") as handle:
        video = VideoStreamAv(handle)
        manager = SceneManager()
        # cuts are told from fast motion by comparing each frame with those around it
        manager.add_detector(AdaptiveDetector(min_scene_len=SHORTEST))
        manager.detect_scenes(video)
        scenes = manager.get_scene_list()
    print(json.dumps([round(start.seconds, 3) for start, _ in scenes[1:]]))
