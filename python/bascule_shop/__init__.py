"""The reference shop: gateway, user, order, product and payment on bascule."""
