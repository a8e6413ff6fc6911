"""The public battery: one list of checks for any loss, ours or yours.

>>> from lossary.testing import CHECKS, Subject, library_of
>>> subject = Subject(contract_of(my_loss), oracle=my_oracle)
>>> for check in CHECKS:
...     if check.applies(subject, library_of("torch")):
...         check(subject, library_of("torch"))
"""

from lossary.testing.checks import CHECKS as CHECKS
from lossary.testing.checks import Check as Check
from lossary.testing.libraries import LIBRARIES as LIBRARIES
from lossary.testing.libraries import Library as Library
from lossary.testing.libraries import library_of as library_of
from lossary.testing.subject import CheckFailed as CheckFailed
from lossary.testing.subject import Subject as Subject
