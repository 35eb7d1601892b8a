"""The directory of the results."""

import os
import pwd


def directory(conf):
    """Returns `lines.dir`, and makes it; `{user}` in it is the user that runs this process."""
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        user = "uid-%d" % os.getuid()
    path = os.path.expanduser(conf["lines.dir"].replace("{user}", user))
    os.makedirs(path, exist_ok=True)
    return path
