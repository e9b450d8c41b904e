-- Nothing: beside a database server the broker is RabbitMQ. The number is kept, so that a schema version means the
-- same in both dialects.
DO 0;
