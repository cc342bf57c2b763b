CREATE DATABASE IF NOT EXISTS `user`;
CREATE DATABASE IF NOT EXISTS `order`;
CREATE DATABASE IF NOT EXISTS `payment`;
GRANT ALL ON `user`.* TO 'shop'@'%';
GRANT ALL ON `order`.* TO 'shop'@'%';
GRANT ALL ON `payment`.* TO 'shop'@'%';
