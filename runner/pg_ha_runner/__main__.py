# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m pg_ha_runner`` is ``pg-ha``."""

from .cli import main

if __name__ == "__main__":
    main()
