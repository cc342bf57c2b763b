// Run by MongoDB's entry point when it is set up for the first time.
const password = require("fs").readFileSync("/run/secrets/product_password", "utf8").trim();
db.getSiblingDB("product").createUser({
  user: "product",
  pwd: password,
  roles: [{ role: "readWrite", db: "product" }],
});
