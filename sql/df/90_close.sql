-- Last of the folder: what the files before it have added is taken from PUBLIC and given to the roles that use df.
select df._close();
