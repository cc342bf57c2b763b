"""The reference shop: gateway, user, order, product and payment on bascule. Start at :mod:`bascule_shop.app`."""
