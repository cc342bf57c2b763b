# Sourced by MySQL's entry point when it is set up for the first time, with its function for statements.
# The password is of letters and digits: make_secrets.py makes it.
docker_process_sql <<STATEMENTS
CREATE DATABASE payment;
CREATE USER 'payment'@'%' IDENTIFIED BY '$(cat /run/secrets/payment_password)';
GRANT ALL ON payment.* TO 'payment'@'%';
STATEMENTS
