"""The user service."""

from bascule_shop.user._service import USER_CREATED as USER_CREATED
from bascule_shop.user._service import UserCreated as UserCreated
from bascule_shop.user._service import UserService as UserService
from bascule_shop.user._store import EmailTakenError as EmailTakenError
from bascule_shop.user._store import SqlUserStore as SqlUserStore
from bascule_shop.user._store import UserStore as UserStore
