"""``bascule doctor``: what it looks at, a module for each kind of thing."""

from bascule.cli.doctor._examine import Check as Check
from bascule.cli.doctor._examine import Finding as Finding
from bascule.cli.doctor._examine import Level as Level
from bascule.cli.doctor._examine import Report as Report
from bascule.cli.doctor._examine import examine as examine
