"""Everything that differs between operating systems. Nothing else in the package asks which one this is.

If a system lacks something, there is another way, or a function says that it does not know, or an option is refused
with the name of the system that has it.
"""

import sys

if sys.platform == "win32":
    raise ImportError("esockd_core serves on Linux, macOS and BSD: Windows lacks the interfaces of Unix that it needs")
