# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options that every module with Amazon RDS shares."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation fragment C(freight.pg_ha.aws)."""

    DOCUMENTATION = r"""
options:
  region:
    description: Region of AWS; by default what C(AWS_REGION), C(AWS_DEFAULT_REGION) or the profile says.
    type: str
  profile:
    description: Profile of AWS's configuration on the host that runs the module; by default what C(AWS_PROFILE) says, or the credentials of the environment.
    type: str
  endpoint_url:
    description: Address of the API where it is not AWS's own, as for a stand-in; by default what C(AWS_ENDPOINT_URL) says.
    type: str
  ca_bundle:
    description: CA that signed the API's certificate, on the host that runs the module, where it is not a public one; by default what C(AWS_CA_BUNDLE) says.
    type: path
requirements:
  - boto3
notes:
  - There is no option for a key. Credentials come from the environment (C(AWS_ACCESS_KEY_ID) and the like), a profile, or the role of the host or pod that runs
    the module, so that none is an argument of a process or stands in a log.
  - Requests that the service throttles are sent again, more and more slowly, eight times in all.
"""
